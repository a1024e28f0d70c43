package core

import (
	"encoding/json"
	"strings"
)

// Tables of records, core's own numbering. Never renumber.
const (
	tableMeta       Table = 1  // "log": the shard log's id; "vhost/<name>": home here
	tableExchanges  Table = 2  // vhost, name => exchangeRecord
	tableQueues     Table = 3  // vhost, name => queueRecord
	tableBindings   Table = 4  // vhost, exchange, filter, queue => bindingRecord
	tableSessions   Table = 5  // vhost, key => sessionRecord
	tableNotes      Table = 6  // vhost, key, note => value
	tableRetained   Table = 7  // vhost, topic => message
	tableDeliveries Table = 8  // cursor => newest offset that may have been delivered
	tableDue        Table = 9  // minute => bucketRecord
	tableDedup      Table = 10 // minute => log of the ids that are forgotten then
	tableProducers  Table = 11 // vhost, user, pid => producerRecord
)

// metaVHost begins the keys of virtual hosts that clients declared.
const metaVHost = "vhost/"

// joinKey makes a record's key. Parts hold no NUL: CheckName and CheckTopic
// refuse it. The last part may be any octets.
func joinKey(parts ...string) []byte { return []byte(strings.Join(parts, "\x00")) }

func encodeRecord(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return b
}
