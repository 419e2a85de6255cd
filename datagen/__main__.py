"""The same commands without the console script: ``python -m datagen ledger --out data.h5 --preset sample``."""

import sys

from nerv_fl.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "datagen")
    main()
