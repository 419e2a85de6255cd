"""Federated learning of the NERV ledger encoder, and of any other model."""

from nerv_fl.own_packages import install as _install

_install()
