"""New keys in place of old ones, in the folder that `nerv-fl deploy init` made."""

from nerv_fl.deploy.certificates import make_server_certificate, make_supernode_key
from nerv_fl.deploy.layout import SERVER_ENV, Deployment, read_env
from nerv_fl.errors import ConfigError
from nerv_fl.io.checksums import copy_file
from nerv_fl.server.run_folder import RunFolder


def renew_server_certificate(deployment: Deployment, *, host: str) -> None:
    """Make the server a new key and certificate of the deployment's own authority."""
    make_server_certificate(
        deployment.server.key,
        deployment.server.certificate,
        host=host,
        authority_key=deployment.ca_key,
        authority=deployment.ca_certificate,
    )


def renew_supernode_key(deployment: Deployment, number: int) -> None:
    """Make a node the key by which its SuperNode is known, and show the server its public half.

    Raises:
        ConfigError: If there is no such node.
    """
    machine = deployment.node(number)
    if not machine.root.is_dir():
        raise ConfigError(f"node is {number}, expected one with a folder in {deployment.root}")
    if number not in RunFolder(deployment.server.run).read_roster():
        raise ConfigError(f"node {number} takes part no more, expected one that is on the roster")
    make_supernode_key(machine.key, machine.public_key)
    deployment.server.forget_supernode(number)
    copy_file(machine.public_key, deployment.server.supernode(number))
    deployment.server.supernode(number).chmod(0o644)


def renew(deployment: Deployment, *, node: int | None) -> None:
    """Renew the server's certificate, or a node's key; the authority and the host stay.

    Args:
        deployment: What `nerv-fl deploy init` made, with its authority.
        node: The node; None for the server.

    Raises:
        ConfigError: If there is no such node, or no server.
        SealError: If the authority cannot be read.
    """
    if node is not None:
        renew_supernode_key(deployment, node)
        return
    host = read_env(deployment.server.env, names=SERVER_ENV)["HOST"]
    renew_server_certificate(deployment, host=host)
