// Rectangle [x0, x0 + width] x [y0, y0 + height] without a disc about (hole_x, hole_y); triangles of size h, of h_hole at the hole.
DefineConstant[
  h = {0.05, Min 1e-9, Name "h"}, width = {2, Min 1e-9, Name "width"}, height = {1, Min 1e-9, Name "height"}, x0 = 0, y0 = 0,
  radius = {0.2, Min 1e-9, Name "radius"}, hole_x = x0 + width/2, hole_y = y0 + height/2, h_hole = {h, Min 1e-9, Name "h_hole"}
];
If (hole_x - radius <= x0 || hole_x + radius >= x0 + width || hole_y - radius <= y0 || hole_y + radius >= y0 + height)
  Error("rectangle_with_hole: the hole (hole_x, hole_y, radius) must lie inside the rectangle");
EndIf
Point(1) = {x0, y0, 0, h};
Point(2) = {x0 + width, y0, 0, h};
Point(3) = {x0 + width, y0 + height, 0, h};
Point(4) = {x0, y0 + height, 0, h};
Point(5) = {hole_x, hole_y, 0, h_hole};
Point(6) = {hole_x + radius, hole_y, 0, h_hole};
Point(7) = {hole_x, hole_y + radius, 0, h_hole};
Point(8) = {hole_x - radius, hole_y, 0, h_hole};
Point(9) = {hole_x, hole_y - radius, 0, h_hole};
Line(1) = {1, 2};
Line(2) = {2, 3};
Line(3) = {3, 4};
Line(4) = {4, 1};
Circle(5) = {6, 5, 7};
Circle(6) = {7, 5, 8};
Circle(7) = {8, 5, 9};
Circle(8) = {9, 5, 6};
Curve Loop(1) = {1:4};
Curve Loop(2) = {5:8};
Plane Surface(1) = {1, 2};
Physical Curve("bottom") = {1};
Physical Curve("right") = {2};
Physical Curve("top") = {3};
Physical Curve("left") = {4};
Physical Curve("hole") = {5:8};
Physical Surface("domain") = {1};
Mesh.Algorithm = 6;
