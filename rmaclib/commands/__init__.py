"""The commands of rmac: a module for each, imported when the command is called (rmaclib.cli), and what they share.

``options`` has the options that several commands take, ``network`` opens and whitens the network, ``reading`` opens the
images, ``common`` prints the messages.
"""
