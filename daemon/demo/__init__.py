"""A stand-in of GitHub for local git repositories, and the tour built on it."""
