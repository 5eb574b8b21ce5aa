"""The parts of the store in Redis.

link      one connection for all commands, which are sent in batches
listener  one connection that listens to the channels of all logs
mirror    the events of one log, in this process
writer    the events of one run, until the server has them
log.lua   what the server does, one atomic step per command
"""
