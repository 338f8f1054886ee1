"""A stand-in of GitHub for local git repositories: its REST and GraphQL API, webhooks, limits and faults.

It answers out of the repositories themselves, through git's own plumbing, so that git is the oracle
of everything a reader of the API concludes. It knows nothing of the daemon that it is pointed at.
"""

from daemon.demo.standin.callers import Apps, Installation
from daemon.demo.standin.deliveries import DeliveryRecord, DeliveryResult, Hook, signature
from daemon.demo.standin.faults import CutBody, Delay, Drip, Drop, Faults, Hold, Html, Pass, Raw, Replace, Status
from daemon.demo.standin.gitrepo import File, GitRepo, ListedEntry, Person, Submodule, Symlink, executable
from daemon.demo.standin.repositories import ServedRepository
from daemon.demo.standin.requestlog import LoggedRequest, RequestLog
from daemon.demo.standin.standin import StandIn

__all__ = [
    "Apps",
    "CutBody",
    "Delay",
    "DeliveryRecord",
    "DeliveryResult",
    "Drip",
    "Drop",
    "Faults",
    "File",
    "GitRepo",
    "Hold",
    "Hook",
    "Html",
    "Installation",
    "ListedEntry",
    "LoggedRequest",
    "Pass",
    "Person",
    "Raw",
    "Replace",
    "RequestLog",
    "ServedRepository",
    "StandIn",
    "Status",
    "Submodule",
    "Symlink",
    "executable",
    "signature",
]
