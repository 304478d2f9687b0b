// What an application does with ioredis, over the connections that the printed snippets opened.
// `connections` maps an endpoint's name to its client; a failed assertion or a hang ends with a non-zero status.
"use strict";

const assert = require("node:assert/strict");

async function commands(redis) {
  assert.equal(await redis.set("clients:key", "value"), "OK");
  assert.equal(await redis.get("clients:key"), "value");
  assert.equal(await redis.mset("{clients}:a", "1", "{clients}:b", "2"), "OK");
  assert.deepEqual(await redis.mget("{clients}:a", "{clients}:b"), ["1", "2"]);

  const pipeline = redis.pipeline();
  for (let index = 0; index < 100; index += 1) pipeline.set(`clients:${index}`, `${index}`);
  const replies = await pipeline.exec();
  assert.ok(replies.every(([error, reply]) => error === null && reply === "OK"));

  const [first, second] = await redis.multi().incr("{clients}:n").incr("{clients}:n").exec();
  assert.equal(second[1] - first[1], 1);
  await redis.hset("clients:hash", { field: "1" });
  assert.deepEqual(await redis.hgetall("clients:hash"), { field: "1" });
}

async function publishSubscribe(publisher, subscriber) {
  const received = new Promise((resolve) => {
    subscriber.on("message", (channel, message) => resolve([channel, message]));
  });
  await subscriber.subscribe("clients:channel");
  await publisher.publish("clients:channel", "hello");
  assert.deepEqual(await received, ["clients:channel", "hello"]);
}

module.exports = async (connections) => {
  const clients = Object.values(connections);
  for (const client of clients) {
    client.on("error", (error) => {
      console.error(error);
      process.exit(1);
    });
  }
  await commands(connections["primary"]);
  await commands(connections["primary-resp3"]);
  await publishSubscribe(connections["primary"], connections["pubsub"]);
  assert.equal(await connections["reader"].exists("clients:key"), 1);
  await assert.rejects(connections["reader"].set("clients:key", "x"), /NOPERM/);
  for (const client of clients) client.disconnect();
  console.log("ioredis: all passed");
};
