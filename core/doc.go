// Package core is the broker without its wires: it knows messages, addresses,
// exchanges, queues and sessions, and nothing of protocols, disks or plugins.
//
//	Session.Publish -> pipeline -> exchange.route -> target
//	                                                  |   |
//	                                           listener   the queue's shard -> Store.Commit
//	                                                  |   |                        |
//	                                             outbox <- deliver <-- settle <----+
//
// Verbs go down, events come up: a protocol calls the verbs of a [Session],
// and the broker answers only by putting an [Event] into that session's
// [Outbox]. Core calls nobody but its [Store] and its [Guard], and [Waker.Wake]
// is a signal, not a call.
//
// It rests on the standard library alone. Its files form a ladder: each uses
// only names declared in the files above it, in this order:
//
//	message.go      what travels
//	errors.go       what can go wrong, and why a message ended
//	spec.go         what an operator declares
//	settings.go     a declaration in everybody's words
//	verbs.go        what the verbs of a session take and give
//	guard.go        who may do what
//	store.go        what must survive
//	record.go       what core writes down: tables and keys
//	codec.go        how a message looks at rest
//	fate.go         how messages ended
//	outbox.go       how the broker answers
//	publication.go  a message under way, and the answer owed
//	backoff.go      how long what failed rests
//	policy.go       which settings queues have by their names
//	consumer.go     a reader's place at a queue
//	level.go        one line of messages
//	keyed.go        which key is whose
//	queue.go        what waits
//	bucket.go       what waits for its time
//	repeats.go      what was published before
//	letter.go       what becomes of what dies
//	serving.go      who gets it next
//	retained.go     the last value of an address
//	listener.go     who gets it now
//	matcher.go      how an exchange picks
//	exchange.go     who wants it
//	pipeline.go     what happens on the way
//	explain.go      the same way walked with the recorder on
//	shard.go        who owns the queues: the state
//	commit.go       how a turn reaches the disk
//	topology.go     exchanges and bindings come and go
//	declare.go      queues come and go
//	reading.go      messages go out
//	lodging.go      sessions come, are parked and end
//	placing.go      messages go into queues
//	burial.go       and out of them, to dead letters or elsewhere
//	due.go          what is not due yet
//	once.go         what comes twice is kept once
//	intake.go       messages come in
//	loop.go         the shard's goroutine
//	broker.go       the whole
//	starting.go     what the store holds comes back
//	inspect.go      what there is
//	session.go      the door
package core
