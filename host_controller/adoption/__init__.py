"""Taking on domains that run already, and giving them back. Plans are pure; who carries them out is an edge.

`owners.py` knows the tools that write a domain's XML themselves, `plan.py` says what is to be done to take a
domain on, `giving_back.py` the way back. `steps.py` has the steps of both, and `carry_out.py` does them.
"""
