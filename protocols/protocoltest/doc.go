// Package protocoltest plays transcripts: plain text that shows what clients
// send and what the broker answers. They are the conformance tests of every
// adapter, the cross-protocol tests, and the manual of both.
//
//	# A QoS 1 publish is confirmed only when it is on the disk.
//	line a> MK q/readings
//	line a< OK
//	line a> BIND q/readings t/plant/+/temp
//	line a< OK
//	disk hold
//	mqtt c> PUBLISH topic=plant/7/temp qos=1 id=9 | 21.5
//	mqtt c<-
//	disk ok
//	mqtt c< PUBACK id=9
//
// Everything runs in one goroutine, through the handlers, without sockets and
// with a clock that stands until it is moved: what was seen once is seen again.
//
//	transcript -> wire (a client's bytes) -> Handler.Receive -> core in a box
//	transcript <- wire (a client's eyes)  <- Handler.Deliver <- core in a box
//
// # Connections
//
//	line a> TEXT       a sends
//	line a< TEXT       the next answer a gets
//	line a>"BYTES"     exact bytes, a Go string; a<"BYTES" expects them
//	a<-                nothing more comes, once the broker has settled
//	a<eof              nothing more comes, and the broker has closed
//	line a= SENTENCE   a neutral step, see below
//
// The first mention of a name connects and logs in; from then on the protocol
// may be left out. The protocols are line, stomp (1.2; stomp/1.1, stomp/1.0)
// and mqtt (5; mqtt/3.1.1, mqtt/3.1). A name whose first step is CONNECT or
// STOMP is not logged in before.
//
//	line    the text verbatim, and a line end
//	STOMP   COMMAND name:value... | body
//	MQTT    PACKET field=value... | payload
//
// Where a value needs a space, a "|" or a control character it is a Go string.
// A content-length need not be written: it is sent where the body holds a NUL,
// and always checked. MQTT's fields are topic qos id retain dup code codes
// session client clean keepalive user pass will_topic will will_qos
// will_retain; in SUBSCRIBE each filter= begins a filter, and qos nl rap rh
// after it are its own. A flag may stand alone. Its properties:
//
//	payload_format message_expiry content_type response_topic correlation_data
//	subscription_id session_expiry assigned_client server_keep_alive auth_method
//	auth_data request_problem will_delay request_response response_info
//	server_reference reason receive_max topic_alias_max topic_alias max_qos
//	retain_available max_packet wildcard_available subscription_id_available
//	shared_available, and :NAME=VALUE for a user property
//
// A property of the will is written will_NAME.
//
// In what is expected, $x is captured the first time and must be the same from
// then on; $_ is anything; $$ is a dollar. A variable that does not end the
// text holds no space. All headers, properties and options must be named,
// unless a bare * allows more; the * of an ERROR covers its body.
//
// What one connection sends in a row goes in together; before another speaks,
// and before anything is expected, the broker settles. So order is exact per
// connection.
//
// # The world
//
//	broker store=memory shards=1 clock=2030-01-01T13:00:00Z auto_create=false
//	each VAR x y z          the transcript once per value; several multiply
//	open mqtt/5 c OPTION=V  connects with options; the option raw: no login
//	close a                 a leaves politely; cut a: it vanishes
//	stop a, go a            a stops, and goes on, reading
//	tick 10s                time passes
//	settle                  the broker comes to rest
//	disk hold               nothing more becomes durable; disk sync: what is
//	                        held does; disk ok: all does, from now on
//	disk full, disk fail    there is no room; the next sync fails
//	power off, power on     all that was not durable is lost, connections too
//
// Options of open are, for mqtt, CONNECT's fields and properties, and
// expiry=1h for a session that is resumed; for stomp, headers of CONNECT with
// client for client-id; for line, those of HELLO.
//
// # Neutral steps
//
// A neutral step is written in the line protocol's words. The runner says it,
// or expects it, in the words of the connection's protocol, so one transcript
// serves all pairs.
//
//	PUB dest [id=n] [option]... [:header=value]... [| body]
//	SUB sid dest [option]...   and takes the answer that says yes
//	UNSUB sid                  and takes its answer
//	ACK sid seq    NACK sid seq [dead] [delay=dur]
//	MSG sid [seq] dest [option]... [:header=value]... [| body]
//	CONFIRM id     ERR code [id=n]     END sid n [option]...
//
// A PUB with an id is stored and confirmed, one without is transient. If the
// next step of the connection is an ERR, a SUB is not expected to succeed. seq
// is whatever the protocol names a delivery by: capture it. Of a MSG these must
// be named when they are there: ct cid reply key n retain and all headers of
// the user, in their order. n=2 is also what a protocol says that marks a
// redelivery without counting. What a protocol cannot carry (MQTT 3.1.1 has no
// headers) is not asked of it.
package protocoltest
