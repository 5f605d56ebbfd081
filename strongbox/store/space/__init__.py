"""etcd's space.

Where to look:
    admission    what may still be put
    room_keeper  measures and makes room
    defragment   one member at a time
"""
