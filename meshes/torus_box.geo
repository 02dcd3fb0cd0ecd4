// Flat torus [x0, x0 + width) x [y0, y0 + depth) x [z0, z0 + height): opposite faces have matching nodes; tetrahedra of size h.
SetFactory("OpenCASCADE");
DefineConstant[
  h = {0.1, Min 1e-9, Name "h"}, width = {1, Min 1e-9, Name "width"}, depth = {width, Min 1e-9, Name "depth"}, height = {width, Min 1e-9, Name "height"}, x0 = 0, y0 = 0, z0 = 0
];
Box(1) = {x0, y0, z0, width, depth, height};
MeshSize{:} = h;
Periodic Surface{2} = {1} Translate{width, 0, 0};
Periodic Surface{4} = {3} Translate{0, depth, 0};
Periodic Surface{6} = {5} Translate{0, 0, height};
Physical Surface("left") = {1};
Physical Surface("right") = {2};
Physical Surface("front") = {3};
Physical Surface("back") = {4};
Physical Surface("bottom") = {5};
Physical Surface("top") = {6};
Physical Volume("domain") = {1};
Mesh.Algorithm = 6;
