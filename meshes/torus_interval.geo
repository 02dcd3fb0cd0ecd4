// Periodic interval [x0, x0 + length): the ends "left" and "right" are one point; equal cells of length at most h.
DefineConstant[ h = {0.05, Min 1e-9, Name "h"}, length = {1, Min 1e-9, Name "length"}, x0 = 0 ];
lattice() = {length, 0, 0};
Point(1) = {x0, 0, 0};
Point(2) = {x0 + length, 0, 0};
Line(1) = {1, 2};
Transfinite Curve{1} = Ceil(length/h - 1e-9) + 1;
Physical Point("left") = {1};
Physical Point("right") = {2};
Physical Curve("domain") = {1};
