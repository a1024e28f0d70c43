package main

import (
	"context"
	"net"
	"strconv"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/godwitmq/godwit/examples/internal/house"
)

// askMQTT asks with MQTT 5's own words: Response Topic, Correlation Data and
// Message Expiry. Its answers come on a topic of its choice.
func askMQTT(ctx context.Context, a house.Addresses, n int) (map[string]string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", a.MQTT)
	if err != nil {
		return nil, err
	}
	type answer struct{ question, text string }
	heard := make(chan answer, n)
	c := paho.NewClient(paho.ClientConfig{
		ClientID: "mqtt-asker", Conn: conn,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			heard <- answer{string(p.Packet.Properties.CorrelationData), string(p.Packet.Payload)}
			return true, nil
		}},
	})
	if _, err := c.Connect(ctx, &paho.Connect{ClientID: "mqtt-asker", CleanStart: true, KeepAlive: 30}); err != nil {
		return nil, err
	}
	defer c.Disconnect(&paho.Disconnect{}) //nolint:errcheck // everything was answered
	const where = "answers/mqtt-asker"
	if _, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: where, QoS: 1}}}); err != nil {
		return nil, err
	}
	expiry := uint32(lifetime / time.Second)
	for i := range n {
		q := strconv.Itoa(i)
		_, err := c.Publish(ctx, &paho.Publish{
			Topic: "$queue/square", QoS: 1, Payload: []byte(q),
			Properties: &paho.PublishProperties{ResponseTopic: where, CorrelationData: []byte(q), MessageExpiry: &expiry},
		})
		if err != nil {
			return nil, err
		}
	}
	answers := make(map[string]string)
	for len(answers) < n {
		select {
		case h := <-heard:
			answers[h.question] = h.text
		case <-ctx.Done():
			return answers, context.Cause(ctx)
		}
	}
	return answers, nil
}
