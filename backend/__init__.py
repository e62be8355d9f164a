"""What sifdeck does, without a screen: registries, layers, SIF files, containers, jobs.

Nothing in here prints, reads a terminal or imports one.  Long operations take a
``report`` callable and hand it the events of :mod:`backend.events`.
"""
