// Circle S^1 about (x0, y0): a closed curve in the plane, equal arcs of length at most h.
DefineConstant[ h = {0.05, Min 1e-9, Name "h"}, radius = {1, Min 1e-9, Name "radius"}, x0 = 0, y0 = 0 ];
Point(1) = {x0, y0, 0};
Point(2) = {x0 + radius, y0, 0};
Point(3) = {x0, y0 + radius, 0};
Point(4) = {x0 - radius, y0, 0};
Point(5) = {x0, y0 - radius, 0};
Circle(1) = {2, 1, 3};
Circle(2) = {3, 1, 4};
Circle(3) = {4, 1, 5};
Circle(4) = {5, 1, 2};
Transfinite Curve{1:4} = Ceil(Pi*radius/(2*h) - 1e-9) + 1;
Physical Curve("domain") = {1:4};
