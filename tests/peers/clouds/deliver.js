// Delivers one webhook, signed by a library nobody here wrote. Arguments: URL, scheme, secret,
// age in seconds; the body on stdin. Prints the status of the answer.
const { text } = require("node:stream/consumers");
const { Webhook } = require("standardwebhooks");

const [url, scheme, secret, ageS] = process.argv.slice(2);
const id = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W";

const signed = async (body) => {
  if (scheme === "standard") {
    const at = new Date(Date.now() - 1000 * Number(ageS));
    return {
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(at.getTime() / 1000)),
      "webhook-signature": new Webhook(secret).sign(id, at, body),
    };
  }
  // It is an ES module, which NODE_PATH does not find.
  const { sign } = await import(
    `${process.env.NODE_PATH}/@octokit/webhooks-methods/dist-node/index.js`
  );
  return { "x-hub-signature-256": await sign(secret, body) };
};

text(process.stdin).then(async (body) => {
  const headers = await signed(body);
  const answer = await fetch(url, { method: "POST", headers, body });
  console.log(answer.status);
});
