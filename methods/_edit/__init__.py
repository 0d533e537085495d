"""The engine of the locate-then-edit methods.

``options`` holds what the methods let a user set, ``bench`` one injection, ``batch`` an injection
of all facts at once. Below them: ``prepare`` (facts as token ids), ``checks`` (before the work),
``layers``, ``value`` (target optimisation), ``fisher``, ``report``, and ``passes`` with ``rows``,
``head`` and ``fast`` (forward passes). ``refine`` trains what a batch method wrote.
"""
