// Disc about (x0, y0), triangles of size h.
DefineConstant[ h = {0.05, Min 1e-9, Name "h"}, radius = {1, Min 1e-9, Name "radius"}, x0 = 0, y0 = 0 ];
Point(1) = {x0, y0, 0, h};
Point(2) = {x0 + radius, y0, 0, h};
Point(3) = {x0, y0 + radius, 0, h};
Point(4) = {x0 - radius, y0, 0, h};
Point(5) = {x0, y0 - radius, 0, h};
Circle(1) = {2, 1, 3};
Circle(2) = {3, 1, 4};
Circle(3) = {4, 1, 5};
Circle(4) = {5, 1, 2};
Curve Loop(1) = {1:4};
Plane Surface(1) = {1};
Physical Curve("boundary") = {1:4};
Physical Surface("domain") = {1};
Mesh.Algorithm = 6;
