// Sphere S^2 about (x0, y0, z0): a closed surface in space, triangles of size h.
DefineConstant[ h = {0.1, Min 1e-9, Name "h"}, radius = {1, Min 1e-9, Name "radius"}, x0 = 0, y0 = 0, z0 = 0 ];
Point(1) = {x0, y0, z0, h};
Point(2) = {x0 + radius, y0, z0, h};
Point(3) = {x0, y0 + radius, z0, h};
Point(4) = {x0 - radius, y0, z0, h};
Point(5) = {x0, y0 - radius, z0, h};
Point(6) = {x0, y0, z0 + radius, h};
Point(7) = {x0, y0, z0 - radius, h};
For k In {0:3}
  Circle(1 + k) = {2 + k, 1, 2 + (k + 1)%4};
  Circle(5 + k) = {2 + k, 1, 6};
  Circle(9 + k) = {2 + k, 1, 7};
EndFor
For k In {0:3}
  Curve Loop(1 + k) = {1 + k, 5 + (k + 1)%4, -(5 + k)};
  Surface(1 + k) = {1 + k} In Sphere {1};
  Curve Loop(5 + k) = {-(1 + k), 9 + k, -(9 + (k + 1)%4)};
  Surface(5 + k) = {5 + k} In Sphere {1};
EndFor
Physical Surface("domain") = {1:8};
Mesh.Algorithm = 6;
