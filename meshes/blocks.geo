// Rectangle [0, width] x [0, height] of nx x ny blocks with triangles of size h that no block boundary cuts.
DefineConstant[
  h = {0.05, Min 1e-9, Name "h"}, nx = {2, Min 1, Name "nx"}, ny = {2, Min 1, Name "ny"}, width = {1, Min 1e-9, Name "width"}, height = {1, Min 1e-9, Name "height"}
];
For j In {0:ny}
  For i In {0:nx}
    Point(1 + i + j*(nx + 1)) = {i*width/nx, j*height/ny, 0, h};
  EndFor
EndFor
// lines along x, then along y
For j In {0:ny}
  For i In {0:nx - 1}
    Line(1 + i + j*nx) = {1 + i + j*(nx + 1), 2 + i + j*(nx + 1)};
  EndFor
EndFor
along = nx*(ny + 1);
For j In {0:ny - 1}
  For i In {0:nx}
    Line(along + 1 + i + j*(nx + 1)) = {1 + i + j*(nx + 1), 1 + i + (j + 1)*(nx + 1)};
  EndFor
EndFor
For j In {0:ny - 1}
  For i In {0:nx - 1}
    k = 1 + i + j*nx;
    Curve Loop(k) = {1 + i + j*nx, along + 2 + i + j*(nx + 1), -(1 + i + (j + 1)*nx), -(along + 1 + i + j*(nx + 1))};
    Plane Surface(k) = {k};
    Physical Surface(Sprintf("block%g", k)) = {k};
  EndFor
EndFor
Physical Curve("bottom") = {1:nx};
Physical Curve("top") = {1 + nx*ny:nx*(ny + 1)};
Physical Curve("left") = {along + 1:along + 1 + (ny - 1)*(nx + 1):nx + 1};
Physical Curve("right") = {along + 1 + nx:along + ny*(nx + 1):nx + 1};
Mesh.Algorithm = 6;
