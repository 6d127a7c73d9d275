"""Energy: counters where the hardware has them, labelled estimates elsewhere.

nvml, rapl (counters) → meter (windows, appended as the run goes) → account (joules, CO2e)
"""
