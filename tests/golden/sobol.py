"""The first points of the Sobol sequence that scipy gives, for tests/spec/sweep_spec.lua.

scipy.stats.qmc.Sobol uses the direction numbers new-joe-kuo-6.21201 (Joe and Kuo 2008).
Made with scipy 1.17.1: python3 tests/golden/sobol.py > tests/golden/sobol.json
"""
import json
from scipy.stats import qmc

points = qmc.Sobol(d=21, scramble=False, bits=32).random_base2(6)
print(json.dumps([[int(x * 2**32) for x in point] for point in points], separators=(",", ":")))
