"""Any folder of domain XML, taken through `enable`, a start, growth, `enable` again and `disable`.

`python -m lab.domains DIR`, or `make test-domains DIR=…`. What a domain needs and this machine lacks is
replaced (`replace.py`); what concerns memory stays. `trial.py` takes one domain through under a real libvirt.
"""
