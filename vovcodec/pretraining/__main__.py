"""`python -m vovcodec.pretraining`, the same as `vov pretrain`."""

from vovcodec.pretraining.main import main

if __name__ == "__main__":
    raise SystemExit(main())
