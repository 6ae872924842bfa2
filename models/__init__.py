"""Language models and interatomic potentials, behind two protocols."""
