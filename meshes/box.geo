// Box [x0, x0 + width] x [y0, y0 + depth] x [z0, z0 + height], tetrahedra of size h.
SetFactory("OpenCASCADE");
DefineConstant[
  h = {0.1, Min 1e-9, Name "h"}, width = {1, Min 1e-9, Name "width"}, depth = {1, Min 1e-9, Name "depth"}, height = {1, Min 1e-9, Name "height"}, x0 = 0, y0 = 0, z0 = 0
];
Box(1) = {x0, y0, z0, width, depth, height};
MeshSize{:} = h;
Physical Surface("left") = {1};
Physical Surface("right") = {2};
Physical Surface("front") = {3};
Physical Surface("back") = {4};
Physical Surface("bottom") = {5};
Physical Surface("top") = {6};
Physical Volume("domain") = {1};
Mesh.Algorithm = 6;
