// Spherical shells a < r < R ("domain") and R < r < R + d ("layer"; d = 0: none) about the origin, curved hexahedra of size h; n, nr, nl: cells across a sixth of a sphere and through the shells.
DefineConstant[
  h = {0.25, Min 1e-9, Name "h"}, a = {1, Min 1e-9, Name "a"}, R = {1.5, Min 1e-9, Name "R"}, d = {0.5, Min 0, Name "d"},
  n = {Ceil(R*Pi/2/h), Min 1, Name "n"}, nr = {Ceil((R - a)/h), Min 1, Name "nr"}, nl = {Ceil(d/h), Min 0, Name "nl"}
];
If (a >= R)
  Error("spherical_shells: the obstacle's radius a must be less than R");
EndIf
// Each shell of cells is a volume of its own: else gmsh puts the middle nodes of the faces between two shells on
// chords instead of spheres, which costs half of the accuracy of quadratic elements.
shells = nr;
If (d > 0)
  shells = nr + nl;
EndIf
first = 100*(shells + 1);   // numbers from here on: lines and surfaces between two spheres
Point(first) = {0, 0, 0, h};
from() = {0, 2, 4, 6, 0, 1, 4, 5, 0, 1, 2, 3};   // edges of a cube by its corners, bits x, y, z
to() = {1, 3, 5, 7, 2, 3, 6, 7, 4, 5, 6, 7};
loops() = {5, 11, -7, -9, 6, 12, -8, -10, 1, 10, -3, -9, 2, 12, -4, -11, 1, 6, -2, -5, 3, 8, -4, -7};
For s In {0:shells}
  r = (s <= nr ? a + (R - a)*s/nr : R + d*(s - nr)/(nl + (nl == 0)))/Sqrt(3);
  For i In {0:7}
    Point(100*s + i + 1) = {r*(2*(i%2) - 1), r*(2*(Floor(i/2)%2) - 1), r*(2*Floor(i/4) - 1), h};
  EndFor
  For e In {0:11}
    Circle(100*s + e + 1) = {100*s + from(e) + 1, first, 100*s + to(e) + 1};
    Transfinite Curve{100*s + e + 1} = n + 1;
  EndFor
  For f In {0:5}
    side() = {};
    For k In {0:3}
      e = loops(4*f + k);
      side() += {e > 0 ? e + 100*s : e - 100*s};
    EndFor
    Curve Loop(100*s + f + 1) = side();
    Surface(100*s + f + 1) = {100*s + f + 1} In Sphere {first};
    Transfinite Surface{100*s + f + 1};
    Recombine Surface{100*s + f + 1};
  EndFor
EndFor
domain() = {};
layer() = {};
For s In {0:shells - 1}
  For i In {1:8}
    Line(first + 100*s + i) = {100*s + i, 100*(s + 1) + i};
    Transfinite Curve{first + 100*s + i} = 2;
  EndFor
  For e In {0:11}
    Curve Loop(first + 100*s + e + 1) = {100*s + e + 1, first + 100*s + 1 + to(e), -(100*(s + 1) + e + 1), -(first + 100*s + 1 + from(e))};
    Plane Surface(first + 100*s + e + 1) = {first + 100*s + e + 1};
    Transfinite Surface{first + 100*s + e + 1};
    Recombine Surface{first + 100*s + e + 1};
  EndFor
  For f In {0:5}
    around() = {100*s + f + 1, 100*(s + 1) + f + 1};
    For k In {0:3}
      around() += {first + 100*s + Fabs(loops(4*f + k))};
    EndFor
    Surface Loop(100*s + f + 1) = around();
    Volume(100*s + f + 1) = {100*s + f + 1};
    Transfinite Volume{100*s + f + 1};
  EndFor
  If (s < nr)
    domain() += {100*s + 1:100*s + 6};
  Else
    layer() += {100*s + 1:100*s + 6};
  EndIf
EndFor
Physical Surface("obstacle") = {1:6};
Physical Volume("domain") = domain();
If (d > 0)
  Physical Surface("interface") = {100*nr + 1:100*nr + 6};
  Physical Volume("layer") = layer();
EndIf
Physical Surface("outer") = {100*shells + 1:100*shells + 6};
