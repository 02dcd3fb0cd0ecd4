// Disc about (x0, y0), triangles of size h. With front and front_h: size front_h on the circle of
// that radius, growing by a quarter of the distance from it up to h.
DefineConstant[ h = {0.05, Min 1e-9, Name "h"}, radius = {1, Min 1e-9, Name "radius"}, x0 = 0, y0 = 0,
                front = {0, Min 0, Name "front"}, front_h = {0, Min 0, Name "front_h"} ];
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
If (front > 0 && front_h > 0)
  Field[1] = MathEval;
  Field[1].F = Sprintf("min(%g, %g + 0.25 * abs(sqrt((x - %g)^2 + (y - %g)^2) - %g))", h, front_h, x0, y0, front);
  Background Field = 1;
  Mesh.MeshSizeExtendFromBoundary = 0;
EndIf
