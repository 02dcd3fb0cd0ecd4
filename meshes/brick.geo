// Closed surface of a brick about the origin, edges lx, ly, lz, triangles of size h.
SetFactory("OpenCASCADE");
DefineConstant[ h = {0.2, Min 1e-9, Name "h"}, lx = {1.5, Min 1e-9, Name "lx"}, ly = {1, Min 1e-9, Name "ly"}, lz = {1, Min 1e-9, Name "lz"} ];
Box(1) = {-lx/2, -ly/2, -lz/2, lx, ly, lz};
Physical Surface("domain") = {1:6};
MeshSize{ PointsOf{ Volume{1}; } } = h;
Mesh.Algorithm = 6;
