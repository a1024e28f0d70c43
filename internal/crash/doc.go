// Crash kills a real broker again and again while real clients use it, and
// then counts: what was confirmed and is missing.
//
//	go run ./internal/crash -rounds 10 [-seed N] [-binary bin/godwit] [-keep]
//
// Publishers of all three protocols keep 256 messages unanswered each;
// consumers of all three acknowledge some of what they get and sit on the
// rest. At a random instant the process gets kill -9, and sometimes again
// while it recovers. Then everybody comes back: some publishers send again
// what was not answered, some give it up as unknown and go on.
//
//	publishers --> books                 (what was sent, what answered: book.go)
//	    |
//	    v        kill -9
//	  broker  <--------- rounds          (run.go)
//	    |
//	    v
//	consumers --> targets --> faults     (what came, in what order, what was
//	                                      acknowledged and answered: target.go)
//
// A book notes an answer after it was read, a target notes an acknowledgement
// before it is written and its answer after it was read. So the count can err
// on one side only: it never takes for confirmed what the client could not
// know. After the last round all is drained, and the run fails on
//
//	lost      confirmed, and neither acknowledged nor there
//	order     a publisher's messages came first in another order than it sent
//	unmarked  a message came again and did not say so
//	doubled   a message is there twice, and nobody sent it twice, or the
//	          publisher is one of those that may (QoS 2, a producer id)
//	returned  a message came again after its acknowledgement was answered
//	changed   a message is not the one that was sent
//	refused   the broker refused, or dropped a client, while nobody killed it
package main
