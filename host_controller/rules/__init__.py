"""Rules: limits for domains whose XML is somebody else's. Pure: XML and rules in, a view of the domain out.

`matching.py` says whether a rule is for a domain, `taking.py` what the first one that is makes of it.
"""
