// Interval [a, b], cells of length (b - a)/ceil((b - a)/h).
DefineConstant[ h = {0.05, Min 1e-9, Name "h"}, a = 0, b = 1 ];
If (b <= a)
  Error("interval: b must be greater than a");
EndIf
Point(1) = {a, 0, 0};
Point(2) = {b, 0, 0};
Line(1) = {1, 2};
Transfinite Curve{1} = Ceil((b - a)/h - 1e-9) + 1;
Physical Point("left") = {1};
Physical Point("right") = {2};
Physical Curve("domain") = {1};
