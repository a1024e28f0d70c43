package mqtt

import "github.com/godwitmq/godwit/core"

// Reason codes of MQTT 5. A test compares them with mochi's.
const (
	codeDisconnectWithWill = 0x04 // DISCONNECT alone
	codeNoSubscribers      = 0x10 // acks alone
	codeNoSubscription     = 0x11 // UNSUBACK alone
	codeUnspecified        = 0x80
	codeMalformed          = 0x81
	codeProtocol           = 0x82
	codeImplementation     = 0x83
	codeVersion            = 0x84 // CONNACK alone
	codeClientID           = 0x85 // CONNACK alone
	codeBadLogin           = 0x86 // CONNACK alone
	codeNotAuthorized      = 0x87
	codeUnavailable        = 0x88 // CONNACK alone
	codeShutdown           = 0x8b // DISCONNECT alone
	codeAuthMethod         = 0x8c
	codeKeepAlive          = 0x8d // DISCONNECT alone
	codeTakenOver          = 0x8e // DISCONNECT alone
	codeFilterInvalid      = 0x8f
	codeTopicInvalid       = 0x90
	codeIDUnknown          = 0x92 // PUBREL and PUBCOMP alone
	codeReceiveMaximum     = 0x93 // DISCONNECT alone
	codeTopicAlias         = 0x94 // DISCONNECT alone
	codePacketTooLarge     = 0x95
	codeQuotaExceeded      = 0x97
	codeAdministrative     = 0x98 // DISCONNECT alone
	codePayloadFormat      = 0x99
	codeNoSharedSubs       = 0x9e
	codeNoWildcards        = 0xa2
)

// CONNACK return codes of 3.1 and 3.1.1; there are no others.
const (
	returnAccepted     = 0
	returnVersion      = 1
	returnClientID     = 2
	returnUnavailable  = 3
	returnBadLogin     = 4
	returnUnauthorized = 5
)

// subackFailure is the one refusal 3.1.1 knows; 3.1 has none and gets it too.
const subackFailure = 0x80

// A fault is why a connection ends, or a CONNECT is refused: the reason code
// and a sentence for the client.
type fault struct {
	code byte
	text string
}

func (f *fault) Error() string { return f.text }

func malformed(text string) *fault { return &fault{codeMalformed, text} }
func violation(text string) *fault { return &fault{codeProtocol, text} }

// ackCode is the reason code of a PUBACK or PUBREC that refuses.
func ackCode(e *core.Error) byte {
	switch e.Code { //nolint:exhaustive // the rest have no code of their own on an ack
	case core.CodeSyntax, core.CodeNotFound, core.CodeGone:
		return codeTopicInvalid
	case core.CodeDenied, core.CodeUnauthenticated:
		return codeNotAuthorized
	case core.CodeQuota, core.CodeStorageFull, core.CodeTooLarge:
		return codeQuotaExceeded // a PUBACK has no "too large"
	case core.CodeInternal:
		return codeUnspecified
	}
	if e == errPayloadFormat {
		return codePayloadFormat
	}
	return codeImplementation
}

// subackCode is the reason code of a SUBACK or UNSUBACK that refuses.
func subackCode(e *core.Error) byte {
	switch e.Code { //nolint:exhaustive // the rest have no code of their own on a SUBACK
	case core.CodeSyntax, core.CodeNotFound, core.CodeGone:
		return codeFilterInvalid
	case core.CodeDenied, core.CodeUnauthenticated:
		return codeNotAuthorized
	case core.CodeQuota, core.CodeStorageFull:
		return codeQuotaExceeded
	case core.CodeInternal:
		return codeUnspecified
	}
	switch e {
	case errNoWildcard, errDirectWildcard:
		return codeNoWildcards
	}
	return codeImplementation
}

// connackCode is the reason code of a CONNACK that refuses.
func connackCode(e *core.Error) byte {
	switch e.Code { //nolint:exhaustive // the rest have no code of their own on a CONNACK
	case core.CodeSyntax:
		return codeClientID
	case core.CodeUnauthenticated:
		return codeBadLogin
	case core.CodeDenied:
		return codeNotAuthorized
	case core.CodeQuota, core.CodeStorageFull:
		return codeQuotaExceeded
	case core.CodeUnavailable, core.CodeTakenOver, core.CodeTooSlow:
		return codeUnavailable
	case core.CodeBadValue, core.CodeConflict:
		return codeImplementation
	}
	return codeUnspecified
}

// disconnectCode is the reason code of a DISCONNECT that core asks for.
func disconnectCode(e *core.Error) byte {
	switch e.Code { //nolint:exhaustive // the rest is an operator's doing
	case core.CodeTakenOver:
		return codeTakenOver
	case core.CodeUnavailable:
		return codeShutdown
	case core.CodeUnauthenticated, core.CodeDenied:
		return codeNotAuthorized
	case core.CodeQuota, core.CodeStorageFull:
		return codeQuotaExceeded
	case core.CodeInternal:
		return codeUnspecified
	}
	return codeAdministrative
}

// returnCode is the CONNACK of 3.1 and 3.1.1 for a reason code of MQTT 5. ok
// is false if it has no word for it: then the connection is just closed.
func returnCode(code byte) (r byte, ok bool) {
	switch code {
	case 0:
		return returnAccepted, true
	case codeVersion:
		return returnVersion, true
	case codeClientID:
		return returnClientID, true
	case codeUnavailable, codeQuotaExceeded, codeUnspecified, codeImplementation:
		return returnUnavailable, true
	case codeBadLogin:
		return returnBadLogin, true
	case codeNotAuthorized:
		return returnUnauthorized, true
	}
	return 0, false
}

// A verdict is what 3.1 and 3.1.1 do with a publish that was refused: they
// have no word for it.
type verdict byte

const (
	ackAndDrop verdict = iota // refused for good: sending it again would not help
	holdBack                  // no room now: not acknowledged, so that it is sent again
	hangUp                    // nothing can be confirmed any more
)

func verdictV3(e *core.Error) verdict {
	switch e.Code { //nolint:exhaustive // an acknowledgement of the rest would lie
	case core.CodeQuota, core.CodeStorageFull, core.CodeUnavailable:
		return holdBack
	case core.CodeDenied, core.CodeRejected: // a policy's decision [MQTT-3.3.5-2]
		return ackAndDrop
	}
	return hangUp
}
