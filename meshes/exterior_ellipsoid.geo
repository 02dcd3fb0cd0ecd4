// Ball of radius R about the origin without an ellipsoid of semi-axes a, b, c (filled = 1: with it), and a layer to R + d (d = 0: none); tetrahedra of size h, h_obstacle at the ellipsoid.
SetFactory("OpenCASCADE");
DefineConstant[
  h = {0.4, Min 1e-9, Name "h"}, a = {1, Min 1e-9, Name "a"}, b = {a, Min 1e-9, Name "b"}, c = {a, Min 1e-9, Name "c"},
  R = {1.5, Min 1e-9, Name "R"}, d = {0.5, Min 0, Name "d"}, h_obstacle = {h, Min 1e-9, Name "h_obstacle"}, filled = {0, Min 0, Name "filled"}
];
If (a >= R || b >= R || c >= R)
  Error("exterior_ellipsoid: the ellipsoid (a, b, c) must lie inside the ball of radius R");
EndIf
Sphere(1) = {0, 0, 0, 1};
If (a == b && b == c)
  Dilate{ {0, 0, 0}, a }{ Volume{1}; }
Else
  Dilate{ {0, 0, 0}, {a, b, c} }{ Volume{1}; }
EndIf
Sphere(2) = {0, 0, 0, R};
If (d > 0)
  Sphere(3) = {0, 0, 0, R + d};
  pieces() = BooleanFragments{ Volume{3}; Delete; }{ Volume{1, 2}; Delete; };
Else
  pieces() = BooleanFragments{ Volume{2}; Delete; }{ Volume{1}; Delete; };
EndIf
// the pieces by their extent, the innermost first
inner = -1; middle = -1; outer = -1;
For k In {0:#pieces()-1}
  box() = BoundingBox Volume{ pieces(k) };
  If (box(3) < a + 1e-6*R)
    inner = pieces(k);
  ElseIf (box(3) < R + 1e-6*R)
    middle = pieces(k);
  Else
    outer = pieces(k);
  EndIf
EndFor
obstacle() = Boundary{ Volume{inner}; };
shell() = Boundary{ Volume{middle}; };
sphere() = {};
For k In {0:#shell()-1}
  is = 0;
  For j In {0:#obstacle()-1}
    If (Fabs(shell(k)) == Fabs(obstacle(j)))
      is = 1;
    EndIf
  EndFor
  If (!is)
    sphere() += {Fabs(shell(k))};
  EndIf
EndFor
Physical Surface("obstacle") = {obstacle()};
Physical Volume("domain") = {middle};
If (d > 0)
  Physical Surface("interface") = {sphere()};
  all() = Boundary{ Volume{outer}; };
  far() = {};
  For k In {0:#all()-1}
    is = 0;
    For j In {0:#sphere()-1}
      If (Fabs(all(k)) == sphere(j))
        is = 1;
      EndIf
    EndFor
    If (!is)
      far() += {Fabs(all(k))};
    EndIf
  EndFor
  Physical Surface("outer") = {far()};
  Physical Volume("layer") = {outer};
Else
  Physical Surface("outer") = {sphere()};
EndIf
If (filled > 0)
  Physical Volume("inclusion") = {inner};
Else
  Recursive Delete { Volume{inner}; }
EndIf
Mesh.MeshSizeMax = h;
MeshSize{ PointsOf{ Volume{:}; } } = h;
MeshSize{ PointsOf{ Surface{obstacle()}; } } = h_obstacle;
