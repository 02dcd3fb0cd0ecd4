"""The tables of docs/null_control.md: norms of wave and heat controls against exact values.

waves           y0 = 4x on x <= 1/2, else 0; T = 2.4; exact norm .577350
heat            penalised HUM, implicit Euler, N_t = 4/h, kappa = .1
heat-boundary   y(1) = v, kappa = 1/4, T = 1/2, y0 = sin(pi x): finite elements against the exact
                norm of the penalised problem, by its moments
"""

from __future__ import annotations

import argparse
import tempfile
from decimal import Decimal, getcontext
from pathlib import Path

from mpi4py import MPI

from fem_apps.case import validate
from fem_apps.control.null_control_run import run_case
from fem_apps.output.folder import open_run

PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211"
    "70679821480865132823066470938446095505822317253594081284811174502841027019385211055596446229489549"
)


def metrics(**case):
    base = {
        "mesh": {"geometry": "interval", "parameters": {"h": case.pop("h")}},
        "output": {"pictures": False, "fields": False},
        "kind": "null-control",
        "name": "table",
    }
    checked = validate({**base, **case}, "table")
    with tempfile.TemporaryDirectory() as folder:
        return run_case(checked, open_run(MPI.COMM_SELF, checked, Path(folder) / "run"))


def waves(small):
    rows = (10, 20) if small else (10, 20, 40, 160)
    print(
        "| 1/h | P1 two-grid | finite differences two-grid | spectral, w h < 1 | mixed | P1, no filter | finite differences, no filter |"
    )
    print("|---|---|---|---|---|---|---|")
    ways = (
        ("consistent", "two-grid", "fox-goodwin"),
        ("lumped", "two-grid", "fox-goodwin"),
        ("lumped", "spectral", "fox-goodwin"),
        ("mixed", "none", "midpoint"),
        ("consistent", "none", "fox-goodwin"),
        ("lumped", "none", "fox-goodwin"),
    )
    for J in rows:
        cells = [str(J)]
        for mass, kind, scheme in ways:
            if J == 160 and kind == "none" and mass != "mixed":
                cells.append("not run")
                continue
            m = metrics(
                h=1 / J, equation="wave", control={"on": ["right"]}, mass=mass,
                initial={"y0": "where(x <= 0.5, 4*x, 0)"}, time={"end": 2.4, "scheme": scheme},
                hum={"filter": kind, "lanczos": 60},
            )  # fmt: skip
            cells.append(
                f"{m['control_norm']:.5g} [{m['cg_iterations']}], {m['observability']:.3g}"
            )
        print("| " + " | ".join(cells) + " |", flush=True)


def heat(small):
    print("| case | eps | 1/h | norm | final state | iterations |\n|---|---|---|---|---|---|")
    for end, region, y0 in (
        (1.0, "0.3 < x < 0.8", "sin(pi*x)**10"),
        (0.5, "0.2 < x < 0.8", "sin(pi*x)"),
    ):
        for power in (2, 4):
            for J in (20,) if small else (20, 40, 160):
                m = metrics(
                    h=1 / J, equation="heat", coefficient="0.1", initial={"y0": y0},
                    control={"where": f"where({region}, 1, 0)"}, time={"end": end, "steps": 4 * J},
                    hum={"epsilon_power": power, "tolerance": 1e-6, "lanczos": 0, "max_iterations": 2000},
                )  # fmt: skip
                print(
                    f"| T = {end}, {region} | h^{power} | {J} | {m['control_norm']:.4f} | {m['final_norm']:.2e} | {m['cg_iterations']} |",
                    flush=True,
                )


def penalised_norm(eps, modes):
    """The exact least of |v|^2/2 + |y(T)|^2/(2 eps), as |v|, of the first modes, in 160 digits.

    (G + eps) c = b, |v|^2 = c G c; G_kl = kappa^2 d_k d_l (1 - e^(-(l_k + l_l) T))/(l_k + l_l),
    d_k = sqrt2 k pi (-1)^k, l_k = kappa pi^2 k^2, b_k = e^(-l_k T) (y0, sqrt2 sin(k pi x)).
    """
    getcontext().prec = 160
    kappa, T = Decimal("0.25"), Decimal("0.5")
    lam = [kappa * PI**2 * k**2 for k in range(1, modes + 1)]
    d = [Decimal(2).sqrt() * k * PI * (-1) ** k for k in range(1, modes + 1)]
    decay = [(-a * T).exp() for a in lam]
    G = [
        [
            kappa**2 * d[i] * d[j] * (1 - decay[i] * decay[j]) / (lam[i] + lam[j])
            for j in range(modes)
        ]
        for i in range(modes)
    ]
    b = [decay[0] / Decimal(2).sqrt()] + [Decimal(0)] * (modes - 1)
    # Cholesky of G + eps, in this precision: G alone has a condition number beyond 10^100
    L = [[Decimal(0)] * modes for _ in range(modes)]
    for i in range(modes):
        for j in range(i + 1):
            a = G[i][j] - sum(L[i][k] * L[j][k] for k in range(j))
            if i == j:
                L[i][i] = (a + eps).sqrt()
            else:
                L[i][j] = a / L[j][j]
    y = []
    for i in range(modes):
        y.append((b[i] - sum(L[i][k] * y[k] for k in range(i))) / L[i][i])
    c = [Decimal(0)] * modes
    for i in reversed(range(modes)):
        c[i] = (y[i] - sum(L[k][i] * c[k] for k in range(i + 1, modes))) / L[i][i]
    return float(sum(c[i] * (b[i] - eps * c[i]) for i in range(modes)).sqrt())


def heat_boundary(small):
    print("| eps | exact, penalised | finite elements, 1/h = 40 | 1/h = 80 |\n|---|---|---|---|")
    for power in (6, 9) if small else (6, 9, 12, 15, 20, 30, 50, 80):
        cells = []
        for J in (40,) if small else (40, 80):
            if power > 12:
                cells.append("-")
                continue
            m = metrics(
                h=1 / J, equation="heat", coefficient="0.25", initial={"y0": "sin(pi*x)"},
                control={"on": ["right"]}, time={"end": 0.5, "steps": 10 * J, "scheme": "bdf2"},
                hum={"epsilon": 10.0**-power, "tolerance": 1e-6, "modes": 1000, "lanczos": 0},
            )  # fmt: skip
            cells.append(f"{m['control_norm']:.4f}")
        exact = penalised_norm(Decimal(10) ** -power, 40 if small else 120)
        print(f"| 1e-{power} | {exact:.4f} | " + " | ".join(cells) + " |", flush=True)


TABLES = {"waves": waves, "heat": heat, "heat-boundary": heat_boundary}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], help="which; all if left out")
    parser.add_argument("--small", action="store_true", help="few rows, for a look")
    arguments = parser.parse_args()
    for name in arguments.tables or TABLES:
        TABLES[name](arguments.small)


main()
