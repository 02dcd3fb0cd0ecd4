// Rectangle [x0, x0 + width] x [y0, y0 + height], triangles of size h.
DefineConstant[ h = {0.05, Min 1e-9, Name "h"}, width = {1, Min 1e-9, Name "width"}, height = {1, Min 1e-9, Name "height"}, x0 = 0, y0 = 0 ];
Point(1) = {x0, y0, 0, h};
Point(2) = {x0 + width, y0, 0, h};
Point(3) = {x0 + width, y0 + height, 0, h};
Point(4) = {x0, y0 + height, 0, h};
Line(1) = {1, 2};
Line(2) = {2, 3};
Line(3) = {3, 4};
Line(4) = {4, 1};
Curve Loop(1) = {1:4};
Plane Surface(1) = {1};
Physical Curve("bottom") = {1};
Physical Curve("right") = {2};
Physical Curve("top") = {3};
Physical Curve("left") = {4};
Physical Surface("domain") = {1};
Mesh.Algorithm = 6;
