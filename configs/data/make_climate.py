#!/usr/bin/env python3
"""Makes the columns of climate.h5 from the COADS climatology, a NetCDF-3 file.

    make_climate.py coads_climatology.cdf FOLDER

writes one NPY file a column into FOLDER. A row is a 2-degree cell of the sea in one month of the
mean year, for every STRIDE-th cell in which all variables were observed. Standard library only.
"""
import array
import math
import struct
import sys
from pathlib import Path

STRIDE = 17  # about 6,000 rows
MISSING = -1e33  # the file marks missing values by -1e34
VARIABLES = {
    "UWND": "wind_zonal",
    "VWND": "wind_meridional",
    "SST": "sea_surface_temperature",
    "AIRT": "air_temperature",
    "SLP": "sea_level_pressure",
}
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8}


class NetCDF:
    """The part of the NetCDF classic format that the climatology uses."""

    def __init__(self, path):
        self.data = Path(path).read_bytes()
        if self.data[:4] not in (b"CDF\x01", b"CDF\x02"):
            sys.exit(f"{path}: not a NetCDF classic file")
        self.offset_format = ">i" if self.data[3] == 1 else ">q"
        self.at = 4
        self.records = self.number()
        self.dimensions = [(self.text(), self.number()) for _ in range(self.list_length())]
        self.attributes()
        self.variables = dict(self.variable() for _ in range(self.list_length()))
        self.record_bytes = sum(v["bytes"] for v in self.variables.values() if v["record"])

    def number(self, form=">i"):
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def list_length(self):
        self.number()  # the tag; 0 when the list is empty
        return self.number()

    def padded(self, length):
        start = self.at
        self.at += (length + 3) // 4 * 4
        return self.data[start : start + length]

    def text(self):
        return self.padded(self.number()).decode("ascii")

    def attributes(self):
        for _ in range(self.list_length()):
            self.text()
            kind = self.number()
            self.padded(TYPE_BYTES[kind] * self.number())

    def variable(self):
        name = self.text()
        shape = [self.dimensions[self.number()][1] for _ in range(self.number())]
        self.attributes()
        kind, size = self.number(), self.number()
        begin = self.number(self.offset_format)
        return name, {
            "kind": kind,
            "bytes": size,
            "begin": begin,
            "record": bool(shape) and shape[0] == 0,
            "shape": [self.records if n == 0 else n for n in shape],
        }

    def read(self, name):
        """All values, in the order of the file's dimensions."""
        v = self.variables[name]
        form = {5: "f", 6: "d"}[v["kind"]]
        count = math.prod(v["shape"][1:] if v["record"] else v["shape"])
        starts = [v["begin"]]
        if v["record"]:
            starts = [v["begin"] + r * self.record_bytes for r in range(self.records)]
        values = []
        for start in starts:
            values.extend(struct.unpack_from(f">{count}{form}", self.data, start))
        return values


def rows_of(source):
    longitudes, latitudes = source.read("COADSX"), source.read("COADSY")
    fields = {column: source.read(name) for name, column in VARIABLES.items()}
    cells = len(latitudes) * len(longitudes)
    seen = 0
    for i in range(source.records * cells):
        if any(values[i] < MISSING for values in fields.values()):
            continue
        seen += 1
        if seen % STRIDE:
            continue
        longitude = math.radians(longitudes[i % len(longitudes)])
        month = 2 * math.pi * (i // cells) / 12
        yield {
            "longitude_sin": math.sin(longitude),
            "longitude_cos": math.cos(longitude),
            "latitude": latitudes[i % cells // len(longitudes)],
            "month_sin": math.sin(month),
            "month_cos": math.cos(month),
            **{column: values[i] for column, values in fields.items()},
        }


def write_npy(path, values):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(values)},), }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    column = array.array("f", values)
    if sys.byteorder == "big":
        column.byteswap()
    path.write_bytes(
        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + column.tobytes()
    )


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    rows = list(rows_of(NetCDF(sys.argv[1])))
    for column in rows[0]:
        write_npy(Path(sys.argv[2], column + ".npy"), [row[column] for row in rows])
    print(f"{len(rows)} rows of {len(rows[0])} columns")


if __name__ == "__main__":
    main()
