"""What a network costs on a device: latency tables, measured here or read from a file."""

from nasaug.devices.backends import BACKENDS, Backend, open_backend
from nasaug.devices.csv_format import load_latency_table, read_csv, write_csv
from nasaug.devices.duration import format_latency, parse_latency
from nasaug.devices.entries import RowKey, Timing
from nasaug.devices.judging import Agreement, calibrate, draw_networks, judge
from nasaug.devices.machine import conditions_of, processor
from nasaug.devices.measuring import (
    disturbed,
    empty_run,
    measure_bursts,
    measure_networks,
    measure_rows,
)
from nasaug.devices.samples import Samples, calm, timed_burst
from nasaug.devices.samples_file import SamplesFile, check_conditions
from nasaug.devices.space_rows import networks_covering, rows_of
from nasaug.devices.table import LatencyTable

__all__ = [
    "BACKENDS",
    "Agreement",
    "Backend",
    "LatencyTable",
    "RowKey",
    "Samples",
    "SamplesFile",
    "Timing",
    "calibrate",
    "calm",
    "check_conditions",
    "conditions_of",
    "disturbed",
    "draw_networks",
    "empty_run",
    "format_latency",
    "judge",
    "load_latency_table",
    "measure_bursts",
    "measure_networks",
    "measure_rows",
    "networks_covering",
    "open_backend",
    "parse_latency",
    "processor",
    "read_csv",
    "rows_of",
    "timed_burst",
    "write_csv",
]
