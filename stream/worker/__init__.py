"""The engine room: the only place with a clock, a socket, a thread or a disk.

loop.py     poll, step, commit          ends.py      what a source and a sink must do
commit.py   one transaction             kafka.py     ... over Kafka
restore.py  snapshot, silent replay     local.py     ... in memory, with the same guarantees
ticks.py    idle partitions             files.py     files as partitions
task.py     the life of a task          replay.py    the loop over files
run.py      the process                 http.py      metrics and health
"""
