package line

import (
	"bytes"
	"strings"
	"time"

	"github.com/godwitmq/godwit/core"
)

// A moment is a state in which a verb may come.
type moment uint8

const (
	unknown moment = 1 << iota // before HELLO, and without opening a session
	open                       // after it; a verb that may come there opens an anonymous session
	batched                    // between BEGIN and COMMIT
)

// An argKind is what a verb's argument is. An optional one must look like it.
type argKind uint8

const (
	argToken argKind = iota
	argDest
	argSid
	argNumber
	argSeqs
	argText // the rest of the line
)

// looks tells an optional argument from an option.
func (a argKind) looks(token []byte) bool {
	switch a {
	case argDest:
		return len(token) > 1 && token[1] == '/'
	case argNumber:
		return token[0]-'0' <= 9
	case argToken, argSid, argSeqs, argText:
	}
	return true
}

// A verb is one row of the table: all that scan, the state machine and HELP
// know of it.
type verb struct {
	name     string
	when     moment
	args     []argKind
	need     int // of args
	options  []option
	hashes   []uint64 // of their names
	headers  bool     // :name=value
	payload  bool     // its last word is a length
	numbered bool     // id= counts
	grammar  string
	example  string // one request; its payload behind a line feed
	run      func(*handler, *request) error
}

func (v *verb) text() bool {
	return v != nil && len(v.args) > 0 && v.args[len(v.args)-1] == argText
}

func (v *verb) unknown(key []byte) *core.Error {
	if len(v.options) == 0 {
		return core.Errorf(core.CodeBadValue, "unknown option %q: %s has none", clip(key), v.name)
	}
	names := make([]string, len(v.options))
	for i := range v.options {
		names[i] = v.options[i].name
	}
	return core.Errorf(core.CodeBadValue, "unknown option %q: %s has %s", clip(key), v.name, strings.Join(names, " "))
}

// Places of options in the tables of their verbs.
const (
	helloUser = iota
	helloPass
	helloToken
	helloClient
	helloVHost
	helloPid
	helloHb
)

const (
	pubID = iota
	pubCT
	pubTTL
	pubPri
	pubQoS
	pubRetain
	pubKey
	pubCID
	pubReply
	pubMust
	pubExp
	pubDelay
	pubAt
	pubDedup
	pubExpect
)

const (
	subAck = iota
	subWindow
	subCredit
	subBytes
	subLease
	subRetained
	subPeek
	subSel
	subGroup
	subDurable
	subFrom
	subEpoch
	subMatch
	subRank
	subExclusive
	subTakeover
)

const (
	getN = iota
	getWait
	getAck
	getLease
	getSid
	getFrom
	getGroup
	getSel
)

const (
	nackDead = iota
	nackID
	nackDelay
)

// The one option of ACK, COMMIT, TOUCH, UNSUB.
const only = 0

const (
	mkClass = iota
	mkMaxMessages
	mkMaxBytes
	mkOverflow
	mkTTL
	mkMaxAttempts
	mkBackoff
	mkLease
	mkDeadLetter
	mkIdleExpiry
	mkAutoDelete
	mkPriorities
	mkSingleActive
	mkKeyed
	mkDedupWindow
	mkDeliver
	mkStoreTransient
	mkSpread
	mkArchive
	mkKind
	mkAlternate
	mkMaxAge
	mkCompact
	mkPartitions
	mkAlter
	mkTransient
	mkInternal
	mkMaxWait
)

const (
	rmIfEmpty = iota
	rmIfUnused
)

const (
	bindSel = iota
	bindMatch
)

const (
	unbindMatch = iota
)

const (
	lsAfter = iota
	lsSettings
)

const (
	explainUser = iota
	explainClient
)

// Words of options, in the order of core's values.
var (
	ackWords      = []string{"none", "auto", "manual"}
	classWords    = []string{"fsync", "async", "memory"}
	overflowWords = []string{"reject", "drop_oldest", "dead_letter"}
	matchWords    = []string{"all", "any", "all-with-x", "any-with-x"}
	kindWords     = []string{"topic", "direct", "fanout", "headers"}
	retainedWords = []string{"all", "new", "none"}
)

var idOption = option{name: "id", kind: count, min: 1, help: "confirm it; ids rise"}

var helloOptions = []option{
	helloUser:   {name: "user", kind: name, help: "who"},
	helloPass:   {name: "pass", kind: text, help: "and a password"},
	helloToken:  {name: "token", kind: text, help: "or a token alone"},
	helloClient: {name: "client", kind: name, help: "a name, for traces and durable state"},
	helloVHost:  {name: "vhost", kind: name, help: "a virtual host"},
	helloPid:    {name: "pid", kind: name, help: "a producer's name: what it sends again under the same id is kept once"},
	helloHb:     {name: "hb", kind: lapse, help: "both sides send at least that often"},
}

var pubOptions = []option{
	pubID:     idOption,
	pubCT:     {name: "ct", kind: text, help: "content type"},
	pubTTL:    {name: "ttl", kind: lapse, help: "it expires then"},
	pubPri:    {name: "pri", kind: count, max: 9, help: "priority, 4 if not said"},
	pubQoS:    {name: "qos", kind: count, max: 2, help: "0 in memory; 1, 2 on the disk: the default with id"},
	pubRetain: {name: "retain", kind: flag, help: "t/ only: keep it as the topic's last value"},
	pubKey:    {name: "key", kind: text, help: "orders a stream, sticks a group"},
	pubCID:    {name: "cid", kind: octets, help: "correlation id"},
	pubReply:  {name: "reply", kind: dest, help: "where answers go"},
	pubMust:   {name: "must", kind: flag, help: "nobody takes it: ERR 404"},
	pubExp:    {name: "exp", kind: count, min: 1, max: maxMillis, help: "it expires then, unix ms"},
	pubDelay:  {name: "delay", kind: lapse, help: "deliver it that much later"},
	pubAt:     {name: "at", kind: count, min: 1, max: maxMillis, help: "deliver it then, unix ms"},
	pubDedup:  {name: "dedup", kind: name, help: "sent twice, kept once"},
	pubExpect: {name: "expect", kind: count, min: 1, max: int64(core.MaxOffset), help: "the stream must be at that offset"},
}

var subOptions = []option{
	subAck:       {name: "ack", kind: word, words: ackWords, help: "none: live, the default of t/ and x/; manual: the default of q/"},
	subWindow:    {name: "window", kind: count, min: 1, max: maxCredit, help: "unsettled at once, 1000 if not said"},
	subCredit:    {name: "credit", kind: count, max: maxCredit, help: "instead of window: only CREDIT refills"},
	subBytes:     {name: "bytes", kind: count, min: 1, max: maxCreditBytes, help: "unsettled at once, 4 MiB if not said"},
	subLease:     {name: "lease", kind: lapse, max: int64(maxLease), help: "not settled by then, it goes back"},
	subRetained:  {name: "retained", kind: word, words: retainedWords, help: "t/ only: last values first"},
	subPeek:      {name: "peek", kind: flag, help: "q/ only: read without taking, to the end"},
	subSel:       {name: "sel", kind: text, not: "sel= (selectors)", help: "a selector"},
	subGroup:     {name: "group", kind: name, help: "t/ and x/ only: share with its other members, on any protocol"},
	subDurable:   {name: "durable", kind: name, help: "t/ and x/ only: keep while away; HELLO needs client="},
	subFrom:      {name: "from", kind: text, not: "from= (streams)", help: "s/ only: first last next n @ms"},
	subRank:      {name: "rank", kind: count, max: 255, help: "q/ only: who has credit and the highest gets it, 0 if not said"},
	subExclusive: {name: "exclusive", kind: flag, help: "q/ only: alone, or ERR 409"},
	subTakeover:  {name: "takeover", kind: flag, help: "q/ only: who is there gets END why=taken"},
	subEpoch:     {name: "epoch", kind: count, not: "epoch= (streams)", help: "s/ only: the stream that is meant"},
	subMatch:     {name: "match", kind: word, words: matchWords, help: "of a headers exchange: how :name=value count"},
}

var getOptions = []option{
	getN:     {name: "n", kind: count, min: 1, max: 10_000, help: "so many at most, 1 if not said"},
	getWait:  {name: "wait", kind: lapse, max: int64(5 * time.Minute), help: "wait so long for them, 0s if not said"},
	getAck:   {name: "ack", kind: word, words: ackWords, help: "auto: settled as it is sent; manual if not said"},
	getLease: {name: "lease", kind: lapse, max: int64(maxLease), help: "not settled by then, it goes back; 30s"},
	getSid:   {name: "sid", kind: count, max: maxSid, help: "a number of its own, 0 if not said"},
	getFrom:  {name: "from", kind: text, not: "from= (streams)", help: "s/ only"},
	getGroup: {name: "group", kind: name, not: "group= (streams)", help: "s/ only"},
	getSel:   {name: "sel", kind: text, not: "sel= (selectors)", help: "a selector"},
}

var nackOptions = []option{
	nackDead:  {name: "dead", kind: flag, help: "to the dead letters, now"},
	nackID:    idOption,
	nackDelay: {name: "delay", kind: lapse, help: "back that much later, not as its queue's backoff says"},
}

var mkOptions = []option{
	mkClass:          {name: "class", of: "qs", kind: word, words: classWords, help: "how safe"},
	mkMaxMessages:    {name: "max_messages", of: "qs", kind: count, help: "full with so many"},
	mkMaxBytes:       {name: "max_bytes", of: "qs", kind: count, help: "full with so much"},
	mkOverflow:       {name: "overflow", of: "q", kind: word, words: overflowWords, help: "what a full queue does"},
	mkTTL:            {name: "ttl", of: "q", kind: lapse, help: "of its messages, from their arrival"},
	mkMaxAttempts:    {name: "max_attempts", of: "q", kind: count, max: 1 << 15, help: "then dead"},
	mkBackoff:        {name: "backoff", of: "q", kind: text, help: "rest between attempts: 5s, 1s-5m doubled each time, 1s-5m~0.2 with jitter"},
	mkLease:          {name: "lease", of: "q", kind: lapse, help: "not settled by then, it goes back"},
	mkDeadLetter:     {name: "dead_letter", of: "q", kind: dest, help: "where dead ones go"},
	mkIdleExpiry:     {name: "idle_expiry", of: "q", kind: lapse, help: "goes when no consumer and no verb but PUB used it so long"},
	mkAutoDelete:     {name: "auto_delete", of: "qx", kind: flag, help: "goes with its last consumer, or binding"},
	mkPriorities:     {name: "priorities", of: "q", kind: count, max: 10, help: "levels of pri=, 2 to 10: the highest first"},
	mkSingleActive:   {name: "single_active", of: "q", kind: flag, help: "one consumer at a time"},
	mkKeyed:          {name: "keyed", of: "q", kind: flag, help: "one key, one consumer"},
	mkDedupWindow:    {name: "dedup_window", of: "qs", kind: lapse, help: "how long dedup= is remembered"},
	mkDeliver:        {name: "deliver", of: "q", kind: word, words: []string{"durable", "on_arrival"}, help: "when the disk has it, or at once"},
	mkStoreTransient: {name: "store_transient", of: "q", kind: flag, help: "QoS 0 is stored too"},
	mkSpread:         {name: "spread", of: "q", kind: flag, help: "on a shard of its own"},
	mkArchive:        {name: "archive", of: "q", kind: dest, help: "a stream of all that was settled"},
	mkKind:           {name: "kind", of: "x", kind: word, words: kindWords, help: "how it matches"},
	mkAlternate:      {name: "alternate", of: "x", kind: dest, help: "for what nobody wants"},
	mkMaxAge:         {name: "max_age", of: "s", kind: lapse, help: "kept so long"},
	mkCompact:        {name: "compact", of: "s", kind: flag, help: "the newest of each key is kept"},
	mkPartitions:     {name: "partitions", of: "s", kind: count, max: 1024, help: "so many"},
	mkMaxWait:        {name: "max_wait", of: "q", kind: lapse, help: "who has waited so long goes before higher priorities"},
	mkAlter:          {name: "alter", of: "qxs", kind: flag, help: "change it if it is there"},
	mkTransient:      {name: "transient", of: "x", kind: flag, help: "gone after a restart"},
	mkInternal:       {name: "internal", of: "x", kind: flag, help: "from other exchanges alone"},
}

var moveOptions = []option{only: {name: "n", kind: count, min: 1, help: "so many at most, all that are there if not said"}}

var verbs []verb

// init makes the table; verbs reach HELP, which prints it, so it cannot be a
// plain initialiser.
func init() {
	const always = unknown | open | batched
	destOnly := []argKind{argDest}
	verbs = []verb{
		{
			name: "HELLO", when: unknown | open, args: []argKind{argToken}, need: 1, options: helloOptions,
			grammar: "HELLO 1 [options]", example: "HELLO 1 client=docs", run: (*handler).hello,
		},
		{
			name: "PING", when: always, args: []argKind{argToken},
			grammar: "PING [token]", example: "PING 7", run: (*handler).ping,
		},
		{name: "QUIT", when: always, grammar: "QUIT", example: "QUIT", run: (*handler).quit},
		{
			name: "HELP", when: unknown | open, args: []argKind{argToken},
			grammar: "HELP [verb]", example: "HELP PUB", run: (*handler).help,
		},
		{
			name: "PUB", when: open | batched, args: destOnly, need: 1, options: pubOptions, headers: true, payload: true, numbered: true,
			grammar: "PUB dest [options] length, then the payload", example: "PUB q/hello id=1 ct=text/plain :lang=en 2\nhi", run: (*handler).pub,
		},
		{
			name: "SAY", when: open | batched, args: []argKind{argDest, argText}, need: 2,
			grammar: "SAY dest text", example: "SAY q/hello hi there", run: (*handler).say,
		},
		{name: "BEGIN", when: open | batched, grammar: "BEGIN", example: "BEGIN", run: (*handler).begin},
		{
			name: "COMMIT", when: open | batched, options: []option{idOption}, numbered: true,
			grammar: "COMMIT [id=N]", example: "COMMIT id=2", run: (*handler).commit,
		},
		{name: "ABORT", when: open | batched, grammar: "ABORT", example: "ABORT", run: (*handler).abort},
		{
			name: "SUB", when: open, args: []argKind{argSid, argDest}, need: 2, options: subOptions, headers: true,
			grammar: "SUB sid dest [options]", example: "SUB 7 t/site/+/temp", run: (*handler).sub,
		},
		{
			name: "UNSUB", when: open, args: []argKind{argSid}, need: 1,
			options: []option{{name: "forget", kind: flag, help: "and what is kept for it"}},
			grammar: "UNSUB sid [forget]", example: "UNSUB 7", run: (*handler).unsub,
		},
		{
			name: "CREDIT", when: open, args: []argKind{argSid, argNumber, argNumber}, need: 2,
			grammar: "CREDIT sid messages [bytes]", example: "CREDIT 8 500", run: (*handler).credit,
		},
		{
			name: "GET", when: open, args: destOnly, need: 1, options: getOptions,
			grammar: "GET dest [options]", example: "GET q/hello", run: (*handler).get,
		},
		{
			name: "ACK", when: open | batched, args: []argKind{argSid, argSeqs}, need: 2, options: []option{idOption}, numbered: true,
			grammar: "ACK sid seqs [id=N]", example: "ACK 0 1", run: (*handler).ack,
		},
		{
			name: "NACK", when: open | batched, args: []argKind{argSid, argSeqs}, need: 2, options: nackOptions, numbered: true,
			grammar: "NACK sid seqs [options]", example: "NACK 8 4", run: (*handler).nack,
		},
		{
			name: "TOUCH", when: open, args: []argKind{argSid, argSeqs}, need: 2,
			options: []option{{name: "lease", kind: lapse, max: int64(maxLease), help: "from now on; the subscription's if not said"}},
			grammar: "TOUCH sid seqs [lease=DURATION]", example: "TOUCH 8 6 lease=1m", run: (*handler).touch,
		},
		{
			name: "MK", when: open, args: destOnly, need: 1, options: mkOptions,
			grammar: "MK dest [options]", example: "MK q/readings", run: (*handler).mk,
		},
		{
			name: "RM", when: open, args: destOnly, need: 1,
			options: []option{
				rmIfEmpty:  {name: "if_empty", of: "q", kind: flag, help: "else ERR 409"},
				rmIfUnused: {name: "if_unused", of: "qx", kind: flag, help: "else ERR 409"},
			},
			grammar: "RM dest [options]", example: "RM q/readings", run: (*handler).rm,
		},
		{name: "PURGE", when: open, args: destOnly, need: 1, grammar: "PURGE dest", example: "PURGE q/readings", run: (*handler).purge},
		{
			name: "MOVE", when: open, args: []argKind{argDest, argDest}, need: 2, options: moveOptions,
			grammar: "MOVE source target [n=N]: what is ready in a queue, into another", example: "MOVE q/old q/new n=100", run: (*handler).move,
		},
		{
			name: "REDRIVE", when: open, args: destOnly, need: 1, options: moveOptions,
			grammar: "REDRIVE dest [n=N]: dead letters, back to where they died", example: "REDRIVE q/dead", run: (*handler).redrive,
		},
		{
			name: "BIND", when: open, args: []argKind{argDest, argDest}, need: 2, headers: true,
			options: []option{
				bindSel:   {name: "sel", kind: text, not: "sel= (selectors)", help: "a selector"},
				bindMatch: {name: "match", kind: word, words: matchWords, help: "of a headers exchange: how :name=value count; all"},
			},
			grammar: "BIND target source [options]: q/QUEUE or x/EXCHANGE gets what t/FILTER, x/EXCHANGE/KEY or x/EXCHANGE gets", example: "BIND q/readings t/plant/+/temp", run: (*handler).bind,
		},
		{
			name: "UNBIND", when: open, args: []argKind{argDest, argDest}, need: 2, headers: true,
			options: []option{unbindMatch: {name: "match", kind: word, words: matchWords, help: "as it was bound"}},
			grammar: "UNBIND target source [options, as it was bound]", example: "UNBIND q/readings t/plant/+/temp", run: (*handler).unbind,
		},
		{name: "STAT", when: open, args: destOnly, need: 1, grammar: "STAT dest", example: "STAT q/hello", run: (*handler).stat},
		{
			name: "LS", when: open, args: destOnly,
			options: []option{
				lsAfter:    {name: "after", kind: text, help: "go on behind that one"},
				lsSettings: {name: "settings", kind: flag, help: "what declares them again, not figures; nothing of sessions"},
			},
			grammar: "LS [pattern] [options]: q/ord* queues, x/* exchanges, t/plant* bindings", example: "LS q/*", run: (*handler).ls,
		},
		{name: "INFO", when: open, grammar: "INFO", example: "INFO", run: (*handler).info},
		{
			name: "EXPLAIN", when: open, args: destOnly, need: 1, headers: true,
			options: []option{
				explainUser:   {name: "user", kind: name, not: "user= of EXPLAIN", help: "as that user"},
				explainClient: {name: "client", kind: name, not: "client= of EXPLAIN", help: "as that client"},
			},
			grammar: "EXPLAIN dest [:name=value]", example: "EXPLAIN t/plant/7/temp", run: (*handler).explain,
		},
	}
	for i := range verbs {
		v := &verbs[i]
		byName[packed(v.name)] = v
		for j := range v.options {
			v.hashes = append(v.hashes, hashOf(v.options[j].name))
		}
	}
	pub = byName[packed("PUB")]
	for i := range mkOptions {
		switch mkOptions[i].kind { //nolint:exhaustive // the others have plain values
		case flag:
			flags[mkOptions[i].name] = true
		case dest:
			addresses[mkOptions[i].name] = true
		}
	}
}

var (
	byName = map[uint64]*verb{}
	pub    *verb
)

const (
	maxVerb = 8
	keyPub  = 'p'<<16 | 'u'<<8 | 'b'
)

// packed makes a number of a verb's name, any case.
func packed(name string) (key uint64) {
	for i := range len(name) {
		key = key<<8 | uint64(name[i]|0x20)
	}
	return key
}

// lookup finds a verb by its packed name of n letters, or nil.
func lookup(key uint64, n int) *verb {
	if key == keyPub && n == 3 {
		return pub
	}
	if n > maxVerb {
		return nil
	}
	return byName[key]
}

// find is lookup for a name.
func find(name []byte) *verb {
	if len(name) == 0 || len(name) > maxVerb {
		return nil
	}
	return byName[packed(string(name))]
}

// begins says whether some verb begins with b, any case.
func begins(b []byte) bool {
	for i := range verbs {
		if len(b) <= len(verbs[i].name) && bytes.EqualFold(b, []byte(verbs[i].name[:len(b)])) {
			return true
		}
	}
	return false
}
