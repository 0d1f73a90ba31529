// A certified OpenID provider on a free loopback port, with an ES256 and an RS256 key. Driven by lines on standard input:
//   rotate     new keys from now on; the old ones are published no more
//   overlap    new keys sign from now on; the old ones are published still
// It prints its issuer's address first, and `done` after each line. It ends when standard input does.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import Provider from 'oidc-provider';

const pairs = [['ec', { namedCurve: 'P-256' }, 'ES256'], ['rsa', { modulusLength: 2048 }, 'RS256']];
const newKeys = () => pairs.map(([type, options, alg]) => {
  const { privateKey } = generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg, use: 'sig' };
});

let keys = newKeys();
let handle;
const server = createServer((request, response) => handle(request, response));
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

function provide() {
  const provider = new Provider(issuer, {
    jwks: { keys },
    // The secret is made by the test, for this one run.
    clients: [{
      client_id: 'nightly-build', client_secret: process.env.CLIENT_SECRET, grant_types: ['client_credentials'],
      redirect_uris: [], response_types: [],
    }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource) => ({
          scope: '', audience: 'token-broker', accessTokenFormat: 'jwt', accessTokenTTL: 300,
          jwt: { sign: { alg: resource.endsWith('/rs256') ? 'RS256' : 'ES256' } },
        }),
      },
    },
  });
  handle = provider.callback();
}

provide();
console.log(issuer);
for await (const line of createInterface({ input: process.stdin })) {
  // The first key that fits an algorithm signs.
  keys = line === 'overlap' ? [...newKeys(), ...keys] : newKeys();
  provide();
  console.log('done');
}
process.exit(0);
