package interop

import (
	"testing"
	"time"

	"github.com/go-stomp/stomp/v3"
)

// A stock STOMP client declares an exchange and binds a queue to it by headers,
// as RabbitMQ's users name them; a stock MQTT client publishes through it. The
// broker is killed between the declaration and the publish, and again before
// the read.
//
// mission: S4 S6 S59
func TestExchangeByStockClients(t *testing.T) {
	b := start(t)
	declare := func() (*stomp.Conn, *stomp.Subscription) {
		c, err := stomp.Dial("tcp", b.stomp)
		if err != nil {
			t.Fatal(err)
		}
		sub, err := c.Subscribe("/exchange/jobs/red", stomp.AckClientIndividual,
			stomp.SubscribeOpt.Header("x-exchange-type", "direct"), stomp.SubscribeOpt.Header("x-queue-name", "red"))
		if err != nil {
			t.Fatal(err)
		}
		return c, sub
	}
	c, _ := declare()
	typed := b.typed()
	wait := time.Now().Add(patience)
	for typed.say("LS x/jobs/red settings", "") == "OK" { // SUBSCRIBE has no answer without a receipt
		if time.Now().After(wait) {
			t.Fatal("the queue was not declared")
		}
	}
	b.typed().say("MK q/red", "OK") // behind it on the disk
	_ = c.MustDisconnect()
	b.kill()
	b.run()
	b.mosquittoPub(t, "$exchange/jobs/blue", "nobody's")
	b.mosquittoPub(t, "$exchange/jobs/red", "hello")
	b.kill()
	b.run()
	c, sub := declare()
	select {
	case m := <-sub.C:
		if m.Err != nil || string(m.Body) != "hello" || m.Destination != "/exchange/jobs/red" {
			t.Fatalf("got %q of %s (%v)", m.Body, m.Destination, m.Err)
		}
		if err := c.Ack(m); err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	if err := c.Disconnect(); err != nil {
		t.Fatal(err)
	}
}
