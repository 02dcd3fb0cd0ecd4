"""`python -m fem_apps` is `fem-apps`."""

from fem_apps.cli import main

main()
