"""Guided labs: a Markdown file of steps, checks that look at real results, progress per learner.

* ``document``   the file: text, commands, checks, hints
* ``checks``     looks at files, images, logins, exit codes and outputs
* ``progress``   what a learner has done, under the state home
* ``workshop``   the folder of a lab, with the registry that it speaks of
* ``recorder``   the program that stands for ``sifdeck`` in a lab and notes how it ended
* ``rehearsal``  does a lab's own commands, and holds its checks to the proof
"""
