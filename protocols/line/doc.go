// Package line is Godwit's own protocol: made to be typed with nc, and fast
// enough to be the tool of machines. Everything the core can do is reachable
// by it.
//
//	bytes -> scan -> a request -> its verb -> core.Session
//	bytes <- append <- events                <- core.Outbox
//
// A request is one line of UTF-8: verb, destination, key=value options; a
// payload follows only when the line's last token is its length. Success is
// silent unless an answer carries news. Confirms are cumulative. An error has
// a code and a class, and the connection lives on unless the class is fatal.
// Unknown options are refused, so every later version can add some.
//
// The grammar, ABNF (RFC 5234):
//
//	input    = *( request / eol )                   ; an empty line is a heart-beat, in both directions
//	request  = verb *( SP token ) eol [ payload ]
//	eol      = [CR] LF
//	verb     = 2*8ALPHA                             ; any case
//	token    = 1*( plain / "%" 2HEXDIG )            ; decoded: UTF-8 without NUL
//	plain    = %x21-24 / %x26-7E / UTF8-2 / UTF8-3 / UTF8-4   ; no SP, control or "%"
//	payload  = <len octets> eol                     ; the eol is required and checked
//	len      = 1*9DIGIT                             ; always the last token, and only of PUB and MSG
//	option   = key [ "=" value ] / ":" hname "=" value   ; ":" is a user header: order and repeats kept
//	key      = 1*( ALPHA / DIGIT / "_" )            ; lower case; twice = ERR 406
//	hname    = token                                ; without "=": write "%3D"
//	value    = [token]                              ; may hold "="
//	n        = 1*19DIGIT                            ; <= 2^63-1
//	sid      = 1*9DIGIT                             ; the client's number of a subscription; 0 = GET's
//	dur      = n ( "ms" / "s" / "m" / "h" / "d" )   ; <= 366d
//	dest     = "q/" name / "t/" topic / "x/" name ["/" key] / "s/" name / "r/" id / "v/" name   ; v/ is of MK and LS; x/ without key: the exchange itself, and where it asks for none
//	seqs     = span *( "," span )                   ; <= 256 spans
//	span     = n [ "-" n ]
//
//	session  = "HELLO" SP "1" *( SP option ) / "PING" [SP token] / "QUIT" / "HELP" [SP verb]
//	publish  = "PUB" SP dest *( SP option ) SP len / "SAY" SP dest SP text
//	batch    = "BEGIN" / "COMMIT" [SP "id=" n] / "ABORT"
//	push     = "SUB" SP sid SP dest *( SP option ) / "UNSUB" SP sid [SP "forget"]
//	         / "CREDIT" SP sid SP n [SP n]          ; messages, bytes; added to what is left
//	pull     = "GET" SP dest *( SP option )
//	settle   = "ACK" SP sid SP seqs [SP "id=" n]
//	         / "NACK" SP sid SP seqs *( SP option ) / "TOUCH" SP sid SP seqs [SP "lease=" dur]
//	manage   = "MK" SP dest *( SP option ) / "RM" SP dest *( SP option ) / "PURGE" SP dest
//	         / "MOVE" SP dest SP dest [SP "n=" n] / "REDRIVE" SP dest [SP "n=" n]
//	         / "BIND" SP dest SP dest *( SP option ) / "UNBIND" SP dest SP dest *( SP option )
//	         / "STAT" SP dest / "LS" [SP pattern] *( SP option ) / "INFO" / "EXPLAIN" SP dest *( SP option )
//	pattern  = dest                                 ; a "*" at its end stands for anything: LS q/ord*
//	text     = *( plain / "%" / SP / HTAB )          ; verbatim, nothing is decoded
//
//	output   = *( answer / eol )
//	answer   = "OK" *( SP option ) eol
//	         / "ERR" SP 3DIGIT SP class [SP ( "id=" n / "sid=" sid )] SP text eol
//	         / "CONFIRM" SP n [SP "off=" n] eol     ; every id <= n is done: safe, or named by an earlier ERR
//	         / "MSG" SP sid SP n SP dest *( SP option ) SP len eol payload
//	         / "END" SP sid SP n [SP "why=" key] [SP "code=" 3DIGIT] eol    ; no more MSG; n were sent
//	         / ":" SP text eol                      ; a row of a list; OK or ERR ends the list
//	         / "PONG" [SP token] eol
//	class    = "retry" / "no" / "fatal"
//
// Exactly one SP is between tokens; a tab, a double or a trailing space is ERR
// 400 with its column. Answers to answered verbs come in the order asked.
// CONFIRM, MSG and END come when they are due. The server sends nothing
// unasked except END and a fatal ERR.
//
// In a MSG of a queue the number is the message's own, the same on every
// redelivery: odd for one that is in memory alone, even for one that is
// stored. Of a live subscription it counts 1, 2, 3; 0 is a retained value in
// a subscription with ack, which needs none. The value of cid= alone may
// decode to any octets: MQTT allows them.
//
// What Godwit does not have yet answers "ERR 406 no ...: not supported yet".
package line
