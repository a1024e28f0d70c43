// Package stomp speaks STOMP 1.0, 1.1 and 1.2 on Godwit's core. It does no
// I/O: bytes in become verbs of a core.Session, events become bytes.
//
//	Receive: wire.Scan -> SEND SUBSCRIBE ACK ... -> verbs -> core
//	Deliver: MESSAGE RECEIPT ERROR <- events <- core
//
// What is STOMP's alone lives here and nowhere else:
//
//   - Destinations. The core knows MQTT's topics; /topic/a.b and /topic/a/b are
//     two views of the topic a/b, and what a MESSAGE says can always be sent to
//     again (destination.go).
//   - Headers. One table says which are fields of a message, which are carried
//     along and which nobody may forge (headers.go).
//   - Acknowledgements. ack:client is cumulative, so each subscription keeps
//     its unsettled deliveries in order (ack.go). A topic has nothing to
//     acknowledge: there ack:client makes a private queue (subscribe.go).
//   - Receipts. A RECEIPT leaves when the core has confirmed, which for a
//     persistent SEND is after the disk has it, and for a transaction when it
//     has all of it (receipt.go, tx.go).
//   - Errors. ERROR always ends the connection, so it is said last and once,
//     and nothing that cannot be done is passed over in silence (errors.go).
//
// The reader runs Receive and owns the scanner, the destinations it has seen,
// the transactions and the subscriptions by their ids. The flusher runs Deliver
// and Tick. What both touch, the unsettled deliveries and the receipts owed, is
// guarded by one mutex, held for an append or a look-up and never across a
// call to the core.
//
// Not built yet, and answered with ERROR 406: delay, dedup, selectors, groups
// and durable subscriptions on topics, browsing, streams, temporary queues and
// the dialects of other brokers.
package stomp
