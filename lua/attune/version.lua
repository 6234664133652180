--- The version of the core, without loading it: a part of every point's hash.
return "0.1.0"
