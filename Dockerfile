# docker build -t fem-apps . && docker run --rm -v "$PWD:/root/shared" -w /root/shared fem-apps \
#     mpirun -n 2 fem-apps run examples/aggregation_diffusion/metastable_clusters.toml
# Not exercised by CI: CI runs on Debian 13's packages (README, "Versions").
FROM dolfinx/dolfinx:v0.10.0
COPY . /opt/fem_apps
RUN pip install --no-cache-dir -c /opt/fem_apps/constraints.txt "/opt/fem_apps[dev]"
ENV OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
