"""The only door to GitHub.

A call goes down through ``client`` (what may be asked), ``exchange`` (token, governor, redirects, retries) and
``transport`` (one HTTP exchange with a deadline and a cap); the answer comes up through the pure ``protocol``,
``limits``, ``redirects``, ``shapes`` and ``queries``; ``batching`` finds how many repositories one question may hold.
Where a GitHub App asks, ``apps`` finds the token.
"""

from daemon.github.client import GitHubClient
from daemon.github.exchange import ClientSettings, RequestSeen, Tally
from daemon.github.governor import Governor

__all__ = ["ClientSettings", "GitHubClient", "Governor", "RequestSeen", "Tally"]
