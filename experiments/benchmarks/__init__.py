"""How fast do we train, beside the programs that people use otherwise?"""
